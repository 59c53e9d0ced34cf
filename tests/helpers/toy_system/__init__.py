"""A system of its own, as a user would install it: one linear layer in INT8, with a step, a command and a section."""

from pathlib import Path

from bittrue.flow.engine.system import Shortcut, System


class Toy(System):
    """Everything that a system may declare, once."""

    name, title = "toy", "one linear layer, as an example"
    shortcuts = (Shortcut("epochs", "train.epochs", "epochs of the training"),)

    @property
    def recipe(self):
        from toy_system.network import Recipe

        return Recipe

    def train(self, recipe, work):
        from bittrue.flow.engine import training
        from toy_system.network import Toy as Network

        data = training.data_of(recipe)
        return training.fit(recipe, work, Network(data.shape, len(data.classes), data.gain), data)

    def quantize(self, recipe, work):
        from bittrue.flow.engine import training
        from bittrue.models.training import storage
        from bittrue.models.training.loop import accuracy
        from toy_system.network import IntegerToy
        from toy_system.network import Toy as Network

        data = training.data_of(recipe)
        integer = IntegerToy.of(storage.load(work.upstream["train"] / "network.pt", Network), data)
        storage.save(integer, work.folder / "integer.pt")
        return {"accuracy": accuracy(integer, data.test)}

    def lower(self, recipe, work):
        from bittrue.flow.engine import training
        from bittrue.models.graph.lower import lower
        from bittrue.models.training import storage
        from toy_system.network import IntegerToy

        data = training.data_of(recipe)
        integer = storage.load(work.upstream["quantize"] / "integer.pt", IntegerToy)
        return training.write_lowered(work, lower(integer, name=recipe.name), integer, data)

    def steps(self, recipe):  # noqa: ARG002
        from bittrue.flow.engine.steps import Step

        def weigh(recipe, work):  # noqa: ARG001
            return {"weights": work.results["lower"]["weights"]}

        return [Step("weigh", weigh, ("lower",), (), self.sources("__init__.py"))]

    def section(self):
        from bittrue.flow.report.section import Section

        class Weights(Section):
            template = Path(__file__).parent / "templates" / "toy.html"

            def collect(self, results):
                return {"weighed": results["weigh"]["weights"]}

            def context(self, content):  # noqa: ARG002
                return {"heading": "What it weighs"}

            def problems(self, content):
                return [] if content["weighed"] < 10_000 else ["toy: it is too heavy"]

        return Weights()

    def register(self, app):
        @app.command("toy-greet")
        def greet() -> None:
            """Greet. Example: `bittrue toy-greet`"""
            print("hello from toy")


SYSTEM = Toy()
