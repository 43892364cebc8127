"""The packs of a study's configs, and the ids of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hmtl_ablate.config import DataConfig, TrialConfig, trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.study import Study, Variant


class Packs:
    """The pack of each config, opened once."""

    def __init__(self, opened: Mapping[tuple[str, str], Pack]) -> None:
        self._opened = opened

    @staticmethod
    def key(data: DataConfig) -> tuple[str, str]:
        """Configs with the same key share a pack."""
        seed = data.seed if data.name == "rendered" else ""
        return data.name, f"{data.stored_size}/{data.images}/{seed}/{data.pack_options}"

    def of(self, config: TrialConfig) -> Pack:
        return self._opened[self.key(config.data)]

    def identities(self, tasks: Sequence[str]) -> list[str]:
        """What trials on these tasks depend on, of each pack: `Pack.identity`."""
        return sorted(pack.identity(tasks) for pack in self._opened.values())


class Resolver:
    """Names trials: in place of a variant or stage of the study, a config gets the trial_id of that one's trial with
    the same seed, so that the id of a trial says what it starts from."""

    def __init__(self, study: Study, packs: Packs) -> None:
        self._study, self._packs = study, packs

    def resolve(self, config: TrialConfig) -> TrialConfig:
        """The config with every `trial:NAME` as `trial:ID`."""
        return config.replaced(
            {
                path: f"trial:{self.identify(source.config(config.seed))}"
                for path, source in self.sources(config).items()
            }
        )

    def identify(self, config: TrialConfig) -> str:
        """The trial_id of a config."""
        return trial_id(self.resolve(config), self._packs.of(config).identity(config.tasks))

    def sources(self, config: TrialConfig) -> dict[tuple[str, ...], Variant]:
        """Path of each option that names a variant or stage → that one."""
        named = {
            path: self._study.source(source.removeprefix("trial:"))
            for path, source in config.weight_sources.items()
            if source.startswith("trial:")
        }
        return {path: variant for path, variant in named.items() if variant is not None}
