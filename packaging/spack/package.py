# SPDX-License-Identifier: ISC

from spack_repo.builtin.build_systems.makefile import MakefilePackage

from spack.package import *


class Relay(MakefilePackage):
    """Tunnels over ssh where the server forbids forwarding.  relay joins two
    ends: a TCP port, a Unix socket, stdin and stdout, or a command."""

    homepage = "https://packages.invalid/relay"
    url = "https://packages.invalid/relay-1.0.tar.gz"

    license("ISC")

    version("1.0", sha256="0" * 64)

    variant("static", default=True, description="Build the static relay that tunnels copy")

    depends_on("c", type="build")
    depends_on("musl", type="build", when="+static platform=linux")

    @property
    def build_targets(self):
        if self.spec.satisfies("+static platform=linux"):
            return ["all"]
        return ["relay", "completion/_relay", "completion/relay.bash"]

    @property
    def install_targets(self):
        return ["install", f"PREFIX={self.prefix}"]
