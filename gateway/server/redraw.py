"""A changed config made runnable: loaded, checked whole, and mixed with what has to stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import msgspec

from gateway.app import Blueprint, draw, load_contents
from gateway.config import GatewayConfig, LoadedConfig
from gateway.config.delivery import DeliveryConfig
from gateway.config.load import check_again
from gateway.config.models import BrokerConfig
from gateway.server.contents import Contents

__all__ = ["Load", "Redrawn", "inbox_broker", "loader", "prove_options", "redraw"]

Load = Callable[[Contents], LoadedConfig]
"""Makes a config of what was read for it; reads no disk. Raises `ConfigError`."""


class Redrawn(msgspec.Struct, frozen=True):
    """What a config has become by what it is read from now."""

    blueprint: Blueprint
    needs_restart: tuple[str, ...]
    """Sections that changed and stay as they were until the next start."""


def loader(name: str, env: Mapping[str, str]) -> Load:
    """Give what loads the config file of this name, in this environment."""
    return lambda contents: load_contents(name, contents.text.text, contents.files, env)


def redraw(current: Blueprint, contents: Contents, load: Load, generation: int) -> Redrawn:
    """Load a config again by what it is read from now, checked as at the start.

    Every process of a tree makes the same of the same, whichever changes it has seen before: what
    stays is what the tree started with. Raises `ConfigError`.
    """
    loaded = load(contents)
    config, needs_restart = _keep(current.config, loaded.config)
    if needs_restart:
        # The file was checked, and this is another config: with the ledger's broker, say, gone.
        check_again(loaded, config)
    return Redrawn(draw(replace(loaded, config=config), generation), needs_restart)


def inbox_broker(config: GatewayConfig) -> BrokerConfig | None:
    """Give the broker that the inbox is in, where it is in one: its store connects by itself, by
    the settings of the start.
    """
    delivery = config.delivery
    if delivery.mode == "direct" or delivery.inbox.store != "jetstream":
        return None
    return config.brokers.get(delivery.inbox.broker or "")


def _keep(current: GatewayConfig, changed: GatewayConfig) -> tuple[GatewayConfig, tuple[str, ...]]:
    """Put back what a running process cannot change: ports and their bounds, the log, and where
    the ledger and the inbox are.

    The admin token can be changed, but only for the address that it was checked with, and not be
    taken away: what the open port is bound to was looked at when there was one.
    """
    admin = current.admin.model_copy(update={"token": changed.admin.token})
    if admin != changed.admin or not changed.admin.token.get_secret_value():
        admin = current.admin
    kept = {"server": current.server, "admin": admin, "log": current.log}
    needs_restart = tuple(name for name in kept if kept[name] != getattr(changed, name))
    delivery, sections = _keep_inbox(current.delivery, changed.delivery)
    delivery, place = _keep_ledger(current.delivery, delivery)
    kept["delivery"] = delivery
    return changed.model_copy(update=kept), needs_restart + sections + place


def _keep_inbox(
    current: DeliveryConfig, changed: DeliveryConfig
) -> tuple[DeliveryConfig, tuple[str, ...]]:
    """Put back the mode, and in inbox mode which store there is; its bounds may change."""
    places = ("store", "path", "broker", "stream")
    kept = {place: getattr(current.inbox, place) for place in places}
    inbox = changed.inbox.model_copy(update=kept)
    moved = current.mode == changed.mode == "inbox" and inbox != changed.inbox
    needs_restart = ("delivery.mode",) if current.mode != changed.mode else ()
    if moved:
        needs_restart = (*needs_restart, "delivery.inbox")
    update = {"mode": current.mode, "inbox": inbox}
    return changed.model_copy(update=update), needs_restart


def _keep_ledger(
    current: DeliveryConfig, changed: DeliveryConfig
) -> tuple[DeliveryConfig, tuple[str, ...]]:
    """Put back where the ledger is; how long it remembers may change."""
    place = {name: getattr(current.ledger, name) for name in ("store", "broker", "bucket")}
    ledger = changed.ledger.model_copy(update=place)
    if ledger == changed.ledger:
        return changed, ()
    return changed.model_copy(update={"ledger": ledger}), ("delivery.ledger",)


def prove_options(blueprint: Blueprint, names: Iterable[str]) -> None:
    """Read what the settings of these brokers name, such as certificates; nothing connects.

    Blocks while it reads. Raises `BrokerOptionsError`.
    """
    for name in names:
        config = blueprint.config.brokers[name]
        if config.kind == "kafka":
            from gateway.brokers.kafka import options as kafka  # noqa: PLC0415 - a kind that is not used is not imported

            kafka.client_options(name, config)
        else:
            from gateway.brokers.nats import options as nats  # noqa: PLC0415 - as in make_broker

            nats.client_options(name, config)
