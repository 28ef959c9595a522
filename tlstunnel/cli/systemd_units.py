"""The text of the systemd units, for any installation.

`systemd/` in the repository holds what `render` makes for a package's paths, and a test keeps the two equal; the text
lives here because an installed tlstunnel has no repository beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SYSTEM_DIRECTORY = "/etc/systemd/system"
CONFIG_DIRECTORY = "/etc/tlstunnel"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the running tlstunnel is."""

    command: tuple[str, ...] = ("/usr/bin/tlstunnel",)
    """Program and first arguments, absolute."""
    below_home: tuple[str, ...] = ()
    """Directories the program needs that ProtectHome= would hide: those below /home, /root and /run/user."""

    @property
    def words(self) -> str:
        """The command as a unit writes it."""
        return " ".join(quote(word) for word in self.command)


def quote(word: str) -> str:
    """One word of a command line as systemd reads it (COMMAND LINES in systemd.service(5))."""
    word = word.replace("%", "%%").replace("$", "$$")
    if word and not set(word) & set(" \t\"'\\;"):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def system_units(installation: Installation) -> dict[str, str]:
    """File name to text, for the system's manager."""
    return {
        "tlstunnel.service": _service(installation, "TLS tunnel", f"{CONFIG_DIRECTORY}/tlstunnel.toml", "tlstunnel"),
        "tlstunnel@.service": _service(installation, "TLS tunnel (%i)", f"{CONFIG_DIRECTORY}/%i.toml", "tlstunnel-%i"),
        "tlstunnel.socket": _SOCKET,
    }


def user_units(installation: Installation) -> dict[str, str]:
    """File name to text, for a user's own manager: no other user to become, and ports from 1024 on."""
    return {
        "tlstunnel.service": _user_service(installation, "TLS tunnel", "%E/tlstunnel/tlstunnel.toml", "tlstunnel"),
        "tlstunnel@.service": _user_service(installation, "TLS tunnel (%i)", "%E/tlstunnel/%i.toml", "tlstunnel-%i"),
    }


def _life(installation: Installation, config: str, runtime: str, *, below: str = "/run") -> str:
    return f"""\
Type=notify
ExecStart={installation.words} run {config}
# A configuration that is wrong is refused here, so that "systemctl reload" fails and says so; then the daemon is told.
# On systemd 253 and newer a drop-in with Type=notify-reload and an empty ExecReload= does better than this pair.
ExecReload={installation.words} check {config}
ExecReload=/bin/kill -HUP $MAINPID

# The supervisor passes SIGTERM on and lets connections finish; only what is left after the time-out is killed.
KillMode=mixed
# At least drain_timeout (30s) and the time to end. For a longer drain the daemon itself asks for more, as it goes.
TimeoutStopSec=45s
# The daemon pings only while every worker answers: one whose loop hangs is a reason to start over.
WatchdogSec=30s
Restart=on-failure
RestartSec=1s
# 2 is a configuration that is wrong: starting it again will not make it right.
RestartPreventExitStatus=2

# Two descriptors a connection, in every worker. The daemon computes at start what fits, and refuses what does not.
LimitNOFILE=262144
# A core dump would hold private keys.
LimitCORE=0
# {below}/{runtime}, for unix sockets to listen on.
RuntimeDirectory={runtime}
RuntimeDirectoryMode=0755
"""


_FILTERS = """\
NoNewPrivileges=yes
LockPersonality=yes
# Nothing here makes code at run time.
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# With this one call workers give up whatever capabilities the supervisor has; it can only lower.
SystemCallFilter=capset
SystemCallErrorNumber=EPERM
KeyringMode=private
UMask=0077
"""


def _service(installation: Installation, description: str, config: str, runtime: str) -> str:
    return f"""\
[Unit]
Description={description}
# Not network-online: to listen, addresses of this machine suffice; backends' names are resolved when they are dialled.
After=network.target

[Service]
{_life(installation, config, runtime)}
# A user that exists only while this runs. If "tlstunnel" is a permanent one (useradd --system tlstunnel), that is
# used instead; files may then be given to its group, which keys that are renewed while the daemon runs need.
DynamicUser=yes
User=tlstunnel
# Keys stay root's (0600). A file {CONFIG_DIRECTORY}/keys/web.key is "cred:keys_web.key" in the configuration.
# The directory must exist. It is read once, at start: after renewing such a key restart, a reload sees the old one.
LoadCredential=keys:{CONFIG_DIRECTORY}/keys
# Ports below 1024. Where systemd opens all sockets, a drop-in may empty both lines and set PrivateUsers=yes.
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE

ProtectSystem=strict
{_protect_home(installation.below_home)}PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Other users' processes are hidden. ProcSubset=pid is left out: the process_* metrics need /proc/stat.
ProtectProc=invisible
RemoveIPC=yes
{_FILTERS}
[Install]
WantedBy=multi-user.target
"""


def _user_service(installation: Installation, description: str, config: str, runtime: str) -> str:
    return f"""\
[Unit]
Description={description}

[Service]
{_life(installation, config, runtime, below="%t")}
# What a user's manager may do: filter system calls. Namespaces and other users are root's to give.
{_FILTERS}
[Install]
WantedBy=default.target
"""


def _protect_home(needed: Sequence[str]) -> str:
    if not needed:
        return "ProtectHome=yes\n"
    # A colon would separate the source from the destination.
    paths = "".join("BindReadOnlyPaths={}\n".format(quote(path).replace(":", "\\:")) for path in needed)
    return (
        "# tlstunnel itself is installed below a home directory: of those nothing but it is visible.\n"
        f"ProtectHome=tmpfs\n{paths}"
    )


_SOCKET = """\
[Unit]
Description=Listening sockets of the TLS tunnel

[Socket]
# Opened by systemd, as root, before the service and across its restarts: connections wait instead of being refused.
# A service of the configuration takes it with: listen = "systemd:https". More sockets: one unit for each name.
ListenStream=443
FileDescriptorName=https
# IPv4 too, whatever net.ipv6.bindv6only says.
BindIPv6Only=both
Backlog=4096

[Install]
WantedBy=sockets.target
"""
