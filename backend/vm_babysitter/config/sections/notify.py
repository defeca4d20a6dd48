"""What you are told, and by which ways."""

from typing import Annotated, Literal

from msgspec import Struct

from vm_babysitter.config.forms import DAY_TIME, WEB_ADDRESS
from vm_babysitter.config.keys import about


class Notify(Struct, frozen=True):
    """What you are told, and by which ways. Failures and warnings are always told."""

    unraid: Annotated[
        bool,
        about(
            "Whether you are told by Unraid's notifications, which go on to the browser, e-mail "
            "and so on as you have set up there.",
            example=True,
        ),
    ] = True
    success: Annotated[
        Literal["each", "daily", "never"],
        about(
            "How you are told of what went well: each time, once a day in a summary, or never.",
            example="daily",
        ),
    ] = "daily"
    daily_at: Annotated[
        str,
        about(
            "When the summary of the day comes, in the time zone of the host.",
            example="08:00",
            longest=5,
            form=DAY_TIME,
        ),
    ] = "08:00"
    stale_days: Annotated[
        int,
        about(
            "After how long without a good backup of a VM you are told so, again each week. "
            "0: never.",
            example=3,
            unit="days",
            least=0,
            most=365,
        ),
    ] = 3
    webhook: Annotated[
        str,
        about(
            "A web address that each message is posted to as JSON (see JSON.md). It is secret. "
            "Empty: none.",
            example="https://ntfy.example/my-server",
            longest=2000,
            form=WEB_ADDRESS,
        ),
    ] = ""
    health: Annotated[
        str,
        about(
            "The web address of a check at a service that watches over schedules, such as "
            "healthchecks.io: it is told when a run begins (/start), that it went well, or that "
            "it failed (/fail). It is secret. Empty: none.",
            example="https://hc-ping.com/5f0c1b1e-9d8e-4c52-8a6b-3f8f3c6f2a11",
            longest=2000,
            form=WEB_ADDRESS,
        ),
    ] = ""
