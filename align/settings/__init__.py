"""All settings with their defaults and help texts: the schema that configurations are checked against."""

from __future__ import annotations

from align.settings.answering import Answering, EndpointSettings, Generation, Serving, Vllm, VllmProcess
from align.settings.commands import (
    CalibrateConfig,
    CompareConfig,
    ConvertConfig,
    DataConfig,
    DoctorConfig,
    EvalConfig,
    LeakageConfig,
    MergeConfig,
    PushConfig,
    ReportConfig,
    ShortForms,
    TableConfig,
)
from align.settings.construction import Certificate, ConstructConfig, PainterSettings, Roles, RoleSettings
from align.settings.data import BenchmarkSettings, Part
from align.settings.evaluation import Evaluate, LmmsEval
from align.settings.judging import JudgeSettings, Judging
from align.settings.models import Lora, ModelSettings
from align.settings.rewards import RewardSettings
from align.settings.runs import LaunchConfig, PlanConfig, PlanSettings, RunConfig, TrainConfig
from align.settings.sweeps import Cluster, Job, JudgeJob, SweepConfig

TRACKS = ("paper", "controlled")

__all__ = [
    "TRACKS",
    "Answering",
    "BenchmarkSettings",
    "CalibrateConfig",
    "Certificate",
    "Cluster",
    "CompareConfig",
    "ConstructConfig",
    "ConvertConfig",
    "DataConfig",
    "DoctorConfig",
    "EndpointSettings",
    "EvalConfig",
    "Evaluate",
    "Generation",
    "Job",
    "JudgeJob",
    "JudgeSettings",
    "Judging",
    "LaunchConfig",
    "LeakageConfig",
    "LmmsEval",
    "Lora",
    "MergeConfig",
    "ModelSettings",
    "PainterSettings",
    "Part",
    "PlanConfig",
    "PlanSettings",
    "PushConfig",
    "ReportConfig",
    "RewardSettings",
    "RoleSettings",
    "Roles",
    "RunConfig",
    "Serving",
    "ShortForms",
    "SweepConfig",
    "TableConfig",
    "TrainConfig",
    "Vllm",
    "VllmProcess",
]
