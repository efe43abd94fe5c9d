"""`python -m cli` is `tariff-registry`, where no scripts are installed."""

from cli.main import app

if __name__ == "__main__":
    app(prog_name="tariff-registry")
