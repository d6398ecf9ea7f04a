"""Runs for a while, and prints its progress."""

import time

print("reading 60,000 samples", flush=True)
for epoch in range(1, 9):
    time.sleep(3)
    print(f"epoch {epoch} of 8: loss {0.9**epoch:.3f}", flush=True)
print("saved model 17", flush=True)
