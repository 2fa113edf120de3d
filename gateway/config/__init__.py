"""The config file: its models, how it is read, and what is wrong with it."""

from gateway.config.files import FileContent
from gateway.config.load import LoadedConfig, load_config, load_config_text
from gateway.config.models import GatewayConfig
from gateway.config.problems import ConfigError, Problem

__all__ = [
    "ConfigError",
    "FileContent",
    "GatewayConfig",
    "LoadedConfig",
    "Problem",
    "load_config",
    "load_config_text",
]
