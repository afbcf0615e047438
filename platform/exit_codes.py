"""How a command ends, for scripts; 0 is done, and 1 a defect of the program, with its traceback."""

# A mistake of the user's, told in one line: the same command fails again.
MISTAKE = 2
# It ran, and what it was to do failed; what was committed stays, and the same command goes on from there.
FAILED = 3
INTERRUPTED = 130
TERMINATED = 143
