"""What this process is doing: its tasks and threads, what it allocates, where its CPU time goes. Knows no HTTP."""
