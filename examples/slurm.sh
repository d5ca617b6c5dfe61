#!/bin/bash
# Four nodes train together: sbatch examples/slurm.sh RUN_FOLDER [SETTINGS ...]
# The folder must be visible to the first node; given again, the run goes on where it stopped.
#SBATCH --job-name=pullback
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
# A minute before the time is over every process is asked to save and stop.
#SBATCH --signal=TERM@60
#SBATCH --requeue

run=${1:?the run folder}
shift

if [ -e "$run/config.toml" ]; then
  what=(--resume "$run")
else
  what=(--out "$run" --dataset omniglot --data-dir "$HOME/omniglot" --tasks-per-step 64 "$@")
fi

# srun starts one process on each node; --hosts lets JAX read from SLURM which one it is. Without
# --cpus-per-task srun would give each process a single core, and so a single device.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" pullback train "${what[@]}" --hosts
code=$?

# 3: another process was lost; 137: this one was killed, for instance for want of memory. Once
# more, from the last checkpoint.
if [ $code -eq 3 ] || [ $code -eq 137 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
