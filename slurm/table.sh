#!/usr/bin/env bash
#SBATCH --job-name=align-table
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
# The result of a sweep: settings chosen by validation (if it tunes any), the tables, and missing runs with reasons.
#
#   sbatch slurm/table.sh output_dir=runs/sweep
#
#   ALIGN      command, one or several words: apptainer exec --nv align.sif align  (default: align)
#   JUDGE_JOB  name of the job of slurm/judge.sh, which is cancelled because no evaluation needs it any more
# --- lines of your cluster: modules, environment, container ---
set -uo pipefail
eval "align=(${ALIGN:-align})" # one or several words, quoted as in a shell
[ -z "${JUDGE_JOB:-}" ] || scancel --me --name="$JUDGE_JOB"
# shellcheck disable=SC2154  # `eval` sets it
"${align[@]}" sweep "$@" finish=true
