"""What tests share: programs from outside, processes, certificates."""
