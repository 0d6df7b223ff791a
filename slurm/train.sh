#!/usr/bin/env bash
#SBATCH --job-name=align-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# One training run, which resumes automatically after its time limit, a preemption or a node failure:
#
#   sbatch --gpus-per-node=8 slurm/train.sh recipe=mm_sft model=llava_7b launch.config=ddp output_dir=runs/mine
#   sbatch --gpus-per-node=8 --array=0-7%2 slurm/train.sh runs.txt    # element k: line k + 1 of the file has its arguments, quoted
#
# Five minutes before the time limit SLURM sends SIGUSR1. `align train` saves a checkpoint and exits with status 75 ("try again");
# then the job is requeued. With output_dir=, output goes to <output_dir>/train.log, start and end times of jobs to
# <output_dir>/jobs.jsonl.
#
#   ALIGN         command, one or several words: apptainer exec --nv align.sif align  (default: align)
#   MAX_REQUEUES  maximum number of requeues (default: 100)
#   SLURM_WAIT    seconds that the other nodes have to end after the first node has ended (default: 60)

# --- lines of your cluster: modules, environment, container ---
set -uo pipefail
stage=train

# --- from slurm/shared.sh (make slurm) ---
trap : TERM USR1 # survive a signal to the job; bash handles it when the step has ended
export PYTHONUNBUFFERED=1
eval "align=(${ALIGN:-align})" # one or several words, quoted as in a shell
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}
job=${job:-$SLURM_JOB_ID}
restart=${SLURM_RESTART_COUNT:-0}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ] && [ $# = 1 ] && [[ -f $1 || $1 != *=* ]]; then
    line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")
    if [ -z "$line" ]; then
        echo "error: element $SLURM_ARRAY_TASK_ID of the array needs line $((SLURM_ARRAY_TASK_ID + 1)) of $1, which is not there" >&2
        exit 2
    fi
    eval "set -- $line" || exit 2
fi

value() { # the value of a key among the arguments; the last one if it occurs twice
    local key=$1 found="" argument
    shift
    for argument in "$@"; do
        case $argument in "$key="*) found=${argument#*=} ;; esac
    done
    printf %s "$found"
}

note() { # a line of jobs.jsonl
    [ -z "$folder" ] || printf '{"stage": "%s", "job": "%s", "restart": %d, %s}\n' "$stage" "$job" "$restart" "$1" >>"$folder/jobs.jsonl"
}

now() { date +%Y-%m-%dT%H:%M:%S%z; }

begin() { # from here on all output goes to the folder, if it exists
    [ -z "$folder" ] || {
        mkdir -p "$folder" || exit 1
        echo "Output: $folder/$stage.log"
        exec >>"$folder/$stage.log" 2>&1
    }
    echo "=== job $job, restart $restart, on $SLURM_JOB_NODELIST, $(now)"
    note "\"nodes\": \"$SLURM_JOB_NODELIST\", \"began\": \"$(now)\""
}

finish() { # $1: the step's status; $2: yes if it was interrupted, so that the same command resumes it
    note "\"status\": $1, \"ended\": \"$(now)\""
    echo "=== job $job, restart $restart: status $1, $(now)"
    [ "$2" = no ] || again
    exit "$1"
}

again() { # requeue the job, unless it was cancelled or SLURM has requeued it
    local state
    state=$(squeue --noheader --jobs="$job" --states=all --format="%T %r")
    case $state in
    "RUNNING "* | "COMPLETING TimeLimit") ;;
    *)
        echo "=== left to SLURM, which has ended the job (${state:-unknown to squeue}): cancelled, or requeued by SLURM itself"
        return
        ;;
    esac
    if [ "$restart" -ge "${MAX_REQUEUES:-100}" ]; then
        echo "=== not requeued: it has come back $restart times (MAX_REQUEUES)"
        return
    fi
    echo "=== requeued"
    scontrol requeue "$job" || echo "=== it could not be requeued; the same sbatch command goes on from here"
}
# --- end of slurm/shared.sh ---
folder=$(value output_dir "$@")
begin
# Jobs may share a node, so each job has its own port, below the range of ephemeral ports.
arguments=("$@" evaluate_afterwards=false "launch.main_process_port=$((10000 + SLURM_JOB_ID % 20000))")
if [ "$SLURM_NNODES" -gt 1 ]; then
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    arguments+=("launch.num_machines=$SLURM_NNODES" "launch.main_process_ip=$first")
fi
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not inherit it
# No --kill-on-bad-exit: after a signal, nodes exit with 75 one after the other, and the status of a killed node would hide this.
# 2>&1 inside the step: srun could mix two streams within a character.
# shellcheck disable=SC2016,SC2154  # `eval` sets align; SLURM_NODEID differs from node to node
srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --kill-on-bad-exit=0 --wait="${SLURM_WAIT:-60}" \
    bash -c 'if [ "$SLURM_NNODES" -gt 1 ]; then set -- "$@" "launch.machine_rank=$SLURM_NODEID"; fi; exec "$@" 2>&1' \
    bash "${align[@]}" train "${arguments[@]}"
status=$?
case $status in
75 | 143) finish $status yes ;; # 128 + SIGTERM: a signal to the whole job may reach srun before the step reports its status
*) finish $status no ;;
esac
