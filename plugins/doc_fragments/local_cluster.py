# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which local cluster a module speaks of."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that local_cluster and local_images share."""

    DOCUMENTATION = r"""
options:
  directory:
    description:
      - Folder for what others need of the cluster; it is not to be committed.
      - C(kubeconfig) has mode C(0600) and one context. C(uid) is the UID of C(kube-system). C(images.yml) maps
        published image references to those that the cluster has. C(status.json) names provider, address and programs.
    type: path
    required: true
  checkout:
    description: >-
      Folder of the checkout that the cluster belongs to. It decides the default name, and no other checkout changes or
      removes the cluster.
    type: path
    required: true
  name:
    description: >-
      Name of the cluster, a DNS label of at most 40 characters. By default C(groundwork-) and six digits that follow
      from O(checkout).
    type: str
  subnet:
    description: >-
      Private IPv4 network of the link between this machine and the embedded node, at most C(/29). By default a C(/24)
      in C(10.200.0.0) to C(10.239.255.0) that follows from the name.
    type: str
  provider:
    description:
      - Where the cluster comes from.
      - V(auto) takes the cluster of O(kubeconfig) if that is set; else the provider that was used before; else
        V(kind) where it is installed and a Docker engine answers; else V(minikube); else V(docker_desktop); else
        V(embedded). C(KUBECONFIG) and the current context are never used.
      - V(embedded) is real Kubernetes on this machine, in a network and mount namespace of its own, without a
        container engine.
      - V(kubeconfig) is a cluster that exists. It is never made, changed or removed, and takes no image archives.
      - V(kind), V(minikube) and V(docker_desktop) drive those programs; they are tested against recorded output only.
    type: str
    choices: [auto, embedded, kubeconfig, kind, minikube, docker_desktop]
    default: auto
  kubeconfig:
    description: >-
      Kubeconfig of the cluster to use. One context of it is copied to O(directory); the file itself is never changed.
    type: path
  context:
    description: Context in O(kubeconfig). It may be left out where there is only one.
    type: str
"""
