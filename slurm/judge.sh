#!/usr/bin/env bash
#SBATCH --job-name=align-judge
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
# A server for a judge model, for the duration of the job; evaluations find it through a file:
#
#   export JUDGE_ADDRESS=$PWD/judge.address JUDGE_COMMAND='vllm serve <model> --host 0.0.0.0 --port $PORT'
#   sbatch --gpus-per-node=1 slurm/judge.sh
#   sbatch --gpus-per-node=1 slurm/evaluate.sh run=runs/mine judge.model=<model>
#
#   JUDGE_COMMAND  command that starts the server, which listens on $PORT and responds to /health or /v1/models
#   JUDGE_ADDRESS  file that contains http://<host>:<port> while the server responds

# --- lines of your cluster: modules, environment, container ---

set -uo pipefail
: "${JUDGE_COMMAND:?is the command that starts the server, say: vllm serve <model> --host 0.0.0.0 --port \$PORT}"
: "${JUDGE_ADDRESS:?is the file in which evaluations find the address of the server}"
command -v curl >/dev/null || {
    echo "error: curl is needed to see whether the server answers" >&2
    exit 1
}

export PORT=$((10000 + SLURM_JOB_ID % 20000)) # jobs may share a node
address=http://$SLURMD_NODENAME:$PORT
trap 'kill "$server" 2>/dev/null' TERM USR1
trap '[ "$(cat "$JUDGE_ADDRESS" 2>/dev/null)" != "$address" ] || rm -f "$JUDGE_ADDRESS"' EXIT

answers() {
    curl --silent --fail --max-time 10 --noproxy '*' --output /dev/null "$address/health" ||
        curl --silent --fail --max-time 10 --noproxy '*' --output /dev/null "$address/v1/models"
}

mkdir -p "$(dirname "$JUDGE_ADDRESS")" || exit 1
rm -f "$JUDGE_ADDRESS" # left by a previous job that was killed
bash -c "$JUDGE_COMMAND" &
server=$!
until answers; do
    kill -0 "$server" 2>/dev/null || break
    sleep 2 &
    wait $!
done
if kill -0 "$server" 2>/dev/null; then
    echo "$address" >"$JUDGE_ADDRESS.$SLURM_JOB_ID"
    mv -f "$JUDGE_ADDRESS.$SLURM_JOB_ID" "$JUDGE_ADDRESS"
    echo "The server answers at $address"
fi
while kill -0 "$server" 2>/dev/null; do # a signal ends `wait`, but not the server
    wait "$server"
    status=$?
done
wait "$server"
exit "${status:-$?}"
