#!/bin/bash
# A study on Slurm: Ray on every node of the job, the command on the first one. With the environment active:
#
#     RUNS=/shared/runs sbatch --nodes=4 deploy/slurm.sh STUDY.yaml [OPTIONS OF hmtl-ablate run]
#
# RUNS is the store, in a folder that all nodes share. HEAD and PORT replace the first node's name and 6379.
# docs/clusters.md says what to do when something breaks.
#SBATCH --job-name=hmtl-ablate
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# --exclusive: `ray stop` ends every Ray of this user on a node. --no-kill: a lost node does not end the others.

fail() { echo "slurm.sh: $*" >&2; exit 2; }
(($#)) || fail "name a study: sbatch deploy/slurm.sh STUDY.yaml [OPTIONS OF hmtl-ablate run]"
[[ -n ${RUNS:-} ]] || fail "set RUNS to the store, a folder that all nodes share"
for program in ray hmtl-ablate; do
    command -v "$program" > /dev/null || fail "$program is not found; activate its environment before sbatch"
done

# Files of this job that all nodes see: the cluster's token, and what the command's exit code was.
mkdir -p "$RUNS"
job=$(realpath "$RUNS")/.slurm-$SLURM_JOB_ID
(umask 077 && mkdir -p "$job" && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$job/token")
rm -f "$job/exit"
trap 'rm -rf "$job"' EXIT

unset RAY_ADDRESS
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$job/token
export RAY_TMPDIR=/tmp/hmtl-$SLURM_JOB_ID  # on each node; /tmp/ray may belong to someone else
export RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600  # seconds; on a busy file system 30 do not suffice to load Ray
read -r first <<< "$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
address=${HEAD:-$first}:${PORT:-6379}

# The shell writes down the exit code: srun's own may be another node's, and `ray symmetric-run` gives 0 if Ray did not
# start.
# shellcheck disable=SC2016
srun --no-kill --kill-on-bad-exit=0 --wait=0 --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" -- \
    bash -c 'code=0; "${@:2}" || code=$?; echo "$code" > "$1"; exit "$code"' bash "$job/exit" \
    hmtl-ablate run "$@" --address "$address" --runs "$RUNS" || true

[[ -s $job/exit ]] || fail "Ray did not start on all nodes within $RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT s;" \
    "see above, and $RAY_TMPDIR/ray/session_latest/logs on the nodes"
code=$(< "$job/exit")
# 75: the cluster or a database was lost while trials ran. The same job resumes, at most three times.
if ((code == 75 && ${SLURM_RESTART_COUNT:-0} < 3)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
