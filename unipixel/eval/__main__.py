"""Runs `unipixel eval`: `torchrun --nproc-per-node 8 -m unipixel.eval revos --data ... --model ... --out ...`."""

import sys

from unipixel.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
