#!/usr/bin/env bash
#SBATCH --job-name=align-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --signal=USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
# One evaluation, which resumes automatically after its time limit, a preemption or a node failure:
#
#   sbatch --gpus-per-node=1 slurm/evaluate.sh run=runs/mine
#   sbatch --gpus-per-node=1 --array=0-7%2 slurm/evaluate.sh evaluations.txt    # element k: line k + 1 of the file has its arguments
#
# Every response and verdict is stored immediately, so an interrupted evaluation continues when the job is requeued.
# Output goes to <run>/evaluate.log, start and end times of jobs to <run>/jobs.jsonl; without run= the folder is output_dir=.
#
#   ALIGN           command, one or several words: apptainer exec --nv align.sif align  (default: align)
#   MAX_REQUEUES    maximum number of requeues (default: 100)
#   JUDGE_ADDRESS   file with the URL of the server of slurm/judge.sh; the evaluation waits for this server
#   JUDGE_PATIENCE  seconds to wait for the server (default: 3600)

# --- lines of your cluster: modules, environment, container ---
set -uo pipefail
stage=evaluate

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
answers() { # whether a server responds at this URL
    curl --silent --fail --max-time 10 --noproxy '*' --output /dev/null "$1/health" ||
        curl --silent --fail --max-time 10 --noproxy '*' --output /dev/null "$1/v1/models"
}

wait_for_judge() { # sets address
    local until=$((SECONDS + ${JUDGE_PATIENCE:-3600}))
    command -v curl >/dev/null || {
        echo "error: curl is needed to see whether the judge server answers; or give judge.base_url= and no JUDGE_ADDRESS" >&2
        return 1
    }
    echo "=== waiting for the judge server of $JUDGE_ADDRESS"
    until address=$(cat "$JUDGE_ADDRESS" 2>/dev/null) && [ -n "$address" ] && answers "$address"; do
        [ -z "$signalled" ] || return 143
        if [ $SECONDS -ge $until ]; then
            echo "error: no judge server answers after ${JUDGE_PATIENCE:-3600} s (JUDGE_PATIENCE);" \
                "$JUDGE_ADDRESS holds '$address'; see the output of slurm/judge.sh" >&2
            return 1
        fi
        sleep 5 &
        wait $! # a signal ends this wait
    done
}

folder=$(value run "$@")
if [ -n "$folder" ] && [ ! -d "$folder" ]; then # do not create it: the run failed, or no tuned value could be chosen
    echo "error: run=$folder: no such folder" >&2
    exit 2
fi
if [ -n "$folder" ]; then # resolve a link now: it may change before this job ends
    folder=$(cd "$folder" && pwd -P)
    set -- "${@/#run=*/run=$folder}"
fi
folder=${folder:-$(value output_dir "$@")}
[ "$(value validation "$@")" != true ] || stage=validate
begin
if [ -n "${JUDGE_ADDRESS:-}" ] && [ -z "$(value judge.base_url "$@")" ]; then
    signalled=""
    trap 'signalled=yes' TERM USR1
    wait_for_judge
    status=$?
    [ $status != 143 ] || finish $status yes
    [ $status = 0 ] || finish $status no
    set -- "$@" "judge.base_url=$address/v1"
fi
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not inherit it
# 2>&1 inside the step: srun could mix two streams within a character.
# shellcheck disable=SC2016,SC2154  # `eval` sets align; expanded in the step
srun --nodes=1 --ntasks=1 bash -c 'exec "$@" 2>&1' bash "${align[@]}" eval "$@"
status=$?
case $status in
75 | 138 | 143) finish $status yes ;; # 128 + SIGUSR1, 128 + SIGTERM
*) finish $status no ;;
esac
