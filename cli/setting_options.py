"""The options that are settings: those of `serve`, and of what looks at the settings as `serve` would."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .described import Described

_TEXTS = """
max_backlog_bytes min_free_disk max_wal_bytes retention grpc_listen admin_listen destination mixpanel_project_id
mixpanel_region mixpanel_url mixpanel_timeout unknown_outcomes destinations_file batch_size flush_interval batch_max
max_in_flight retry_attempts retry_base retry_max shutdown_grace log_format log_level
""".split()
_SWITCHES = ("allow_affected_sqlite", "grpc_reflection")

SETTINGS: dict[str, object] = {
    "data_dir": Annotated[Path | None, typer.Option(show_default=False)],
    **dict.fromkeys(_TEXTS, Annotated[str | None, typer.Option(show_default=False)]),
    **dict.fromkeys(_SWITCHES, Annotated[bool | None, typer.Option(show_default=False)]),
}
"""What each option takes. Nothing is checked here: `walbatch.settings` says what is wrong, for every source alike."""


class TakesSettings(Described):
    """A command with these options. What each means stands at the setting, and is looked up when it is needed.

    Its help is printed without boxes: beside names as long as these no room would be left for it in 80 columns.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **(options | {"rich_markup_mode": None}))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options in the order of the settings, each with its help."""
        from walbatch.setting_texts import option_help
        from walbatch.settings import Settings

        order = [*Settings.model_fields]
        found: list[Any] = super().get_params(ctx)
        for option in found:
            if option.name in order and option.help is None:
                takes, option.help = option_help(option.name)
                option.metavar = None if option.is_flag else takes
        return sorted(found, key=lambda option: order.index(option.name) if option.name in order else len(order))


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting. It gets them first, as a mapping by attribute; None is not given."""

    @wraps(command)
    def with_options(**options: Any) -> None:
        command({name: options.pop(name) for name in SETTINGS}, **options)

    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in SETTINGS.items()
    ]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    with_options.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    return with_options
