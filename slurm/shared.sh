# shellcheck shell=bash disable=SC2034,SC2154  # what it sets and uses is in train.sh and evaluate.sh
# The part of train.sh and evaluate.sh that is the same in both. SLURM runs a copy of a single file, so `make slurm` copies it there.
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
