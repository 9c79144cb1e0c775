"""Expressions: CEL, behind the port `Expressions`. The library is imported with the first expression, never at a start."""

from adapters.expressions.evaluator import CelExpressions

__all__ = ["CelExpressions"]
