"""What runs would take, before anything is trained: parameters, memory, time."""
