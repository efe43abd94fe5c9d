import sys

from training.job.supervisor import supervise

sys.exit(supervise(sys.argv[1:]))
