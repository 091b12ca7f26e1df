"""`python -m anydraft`, for launchers that start modules."""

from anydraft.cli import main

if __name__ == "__main__":
    main()
