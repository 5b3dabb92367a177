"""Parts of the commands: arguments, interrupts, description of the machine, results on disk, GPU set-up and check."""
