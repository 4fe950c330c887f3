"""`ursa config`."""

from __future__ import annotations

from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app(no_args_is_help=True, help="Write a commented config file, or show what is in force.")


@app.command()
@shared
def init(session: Session) -> None:
    """Write a commented config file, to your config directory or to --config PATH. Never overwrites one.

    \b
    Examples:
      ursa config init
      ursa config init --config ./ursa.yaml

    \b
    Exit status:
      0  written    2  there is one already, or it can't be written
    """
    from ursa.config import default_config_path, write_template

    path = session.config or default_config_path()
    write_template(path)
    session.out.record("config", path=path)
    session.out.line(f"wrote {path}")
    session.out.line("next: fill in the account id and the 1Password references, then `ursa config show`")


@app.command()
@shared
def show(session: Session) -> None:
    """Show the profile as it is in force, with where its secrets come from, never a secret.

    \b
    Examples:
      ursa config show --profile local
      ursa config show --json

    \b
    Exit status:
      0  shown    2  no such profile, or the config is wrong
    """
    import yaml

    from ursa.config import effective

    shown = effective(session.data().profile)
    session.out.record("config", **shown)
    session.out.line(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
