#!/usr/bin/env bash
#SBATCH --job-name=align-table
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
# What a sweep came to: settings chosen by validation where it has any to choose, the tables, and what is missing and why.
#
#   sbatch slurm/table.sh output_dir=runs/sweep
#
#   ALIGN      the command, of one or several words: apptainer exec --nv align.sif align  (default: align)
#   JUDGE_JOB  name of the job of slurm/judge.sh, which is ended: nobody asks it any more
# --- lines of your cluster: modules, environment, container ---
set -uo pipefail
eval "align=(${ALIGN:-align})" # of one or several words, quoted as for a shell
[ -z "${JUDGE_JOB:-}" ] || scancel --me --name="$JUDGE_JOB"
"${align[@]}" sweep "$@" finish=true
