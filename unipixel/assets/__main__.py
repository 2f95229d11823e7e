"""Prints the path of the sample clip, for shells: `unipixel track "$(python -m unipixel.assets)" ...`."""

from unipixel.assets import sample_path


def main() -> None:
    """Print the path."""
    print(sample_path())


if __name__ == "__main__":
    main()
