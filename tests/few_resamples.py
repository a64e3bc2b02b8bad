"""The command line with few resamples, for processes that a test starts."""

from ldae.cli import main
from tests.tiny_run import few_resamples

if __name__ == "__main__":
    with few_resamples():
        main()
