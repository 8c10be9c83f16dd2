"""Peak memory: measured where there is a device, predicted where there is none."""
