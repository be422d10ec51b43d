"""``python -m ffenc``."""

from ffenc.cli.main import main

if __name__ == "__main__":
    main()
