"""What the rules of slices may use that need functions: expressions, and JSON Schemas."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from application.engine.ports.expressions import Expressions
from domain.kernel import Evaluated, Json, Spent

if TYPE_CHECKING:
    from application.tool_schemas import ToolSchemas

MOST_TOLD = 3


class RuleFunctions:
    """The functions of the catalog (`domain.kernel.Functions`)."""

    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions
        self._schemas: ToolSchemas | None = None

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        return self._expressions.evaluate(expression, values, spent)

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        return self._expressions.named(expression, values)

    def misfit(self, schema: Json, value: Json) -> str | None:
        if self._schemas is None:
            from application.tool_schemas import ToolSchemas  # its library is large, and few processes check a value

            self._schemas = ToolSchemas()
        faults = self._schemas.faults_of(schema, value)[0]
        if not faults:
            return None
        told = "; ".join(f"{place}: {text}" if place else text for place, text in faults[:MOST_TOLD])
        return f"{told}; and {len(faults) - MOST_TOLD} more" if len(faults) > MOST_TOLD else told
