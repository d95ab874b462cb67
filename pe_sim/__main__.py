"""`python -m pe_sim` is the command `pe-sim`."""

from pe_sim.cli import main

if __name__ == "__main__":
    main()
