"""What shaped a model besides its data, as a run reports it: software, transformer, machine, switches."""
