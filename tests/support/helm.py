"""Helm 4: what a benchmark is measured beside."""

from __future__ import annotations

from tests.support.go_tool import GoTool

HELM = GoTool("helm", "helm.sh/helm/v4", "v4.2.4")
