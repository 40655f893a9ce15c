"""Options that several commands read alike."""

from __future__ import annotations

from retailrec.errors import SettingError


def parse_columns(text: str) -> dict[str, str]:
    """`a=b,c=d` as a dictionary."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, theirs in pairs:
        if not (name.strip() and equals and theirs.strip()):
            raise SettingError(
                f"--columns is {text!r}; expected standard=yours pairs with commas between, "
                f"such as user_id=client,item_id=sku,time=date."
            )
    return {name.strip(): theirs.strip() for name, _, theirs in pairs}
