import sys

from training.supervisor import supervise

sys.exit(supervise(sys.argv[1:]))
