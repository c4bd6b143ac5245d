#!/bin/bash
# A run on four machines, a process on each: sbatch docs/clusters/slurm.sh model=lightgcn parallel=columns dataset.dir=PATH
#SBATCH --job-name=l2q
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

# how many processes a machine has: one for each of its GPUs, or for each socket
processes=${PROCESSES:-1}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes)) NUMBA_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

# the folder is on a disk that all machines share: a job that is queued again goes on in it
exec srun python -m torch.distributed.run \
    --nnodes="$SLURM_NNODES" --nproc-per-node="$processes" --max-restarts=3 \
    --rdzv-backend=c10d --rdzv-endpoint="$first:${PORT:-29500}" --rdzv-id="$SLURM_JOB_ID" \
    train.py hydra.run.dir="outputs/slurm/$SLURM_JOB_ID" "$@"
