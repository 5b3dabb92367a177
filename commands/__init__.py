"""What a command line asks for: arguments, interrupts, the machine, the report; set-up and check of a GPU."""
