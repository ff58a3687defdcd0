"""Numba's compiler with a faster way to inline functions, and without the passes that kernels do not need."""

import copy
from typing import Any

import numba
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.inline_closurecall import InlineWorker
from numba.core.typed_passes import NopythonRewrites
from numba.core.untyped_passes import (
    FindLiterallyCalls,
    InlineClosureLikes,
    InlineInlinables,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    RewriteDynamicRaises,
    WithLifting,
)

# the passes for closures, literal_unroll, exceptions, "with" and expressions of whole arrays
_UNNEEDED = {
    FindLiterallyCalls, InlineClosureLikes, LiteralPropagationSubPipelinePass, LiteralUnroll,
    MakeFunctionToJitFunction, NopythonRewrites, RewriteDynamicRaises, WithLifting,
}  # fmt: skip

inlined = numba.njit(inline="always")  # a function that becomes part of those that call it

_analyzed: dict[Any, Any] = {}  # functions that are inlined -> their intermediate representation


class Compiler(CompilerBase):
    """Numba's passes without those that kernels do not need, and with a faster one that inlines functions."""

    def define_pipelines(self) -> list[PassManager]:
        typed = DefaultPassBuilder.define_typed_pipeline(self.state)
        lowering = DefaultPassBuilder.define_nopython_lowering_pipeline(self.state)
        return [_needed("kernel", _untyped_passes(self.state), typed, lowering)]


def _untyped_passes(state: Any) -> PassManager:
    """The passes before types are inferred, also those of a function that is inlined."""
    return _needed("untyped", DefaultPassBuilder.define_untyped_pipeline(state))


def _needed(name: str, *parts: PassManager) -> PassManager:
    passes = PassManager(name)
    for step, description in (found for part in parts for found in part.passes):
        if step not in _UNNEEDED:
            passes.add_pass(_Inlining if step is InlineInlinables else step, description)
    passes.finalize()
    return passes


@register_pass(mutates_CFG=True, analysis_only=False)
class _Inlining(InlineInlinables):
    """Inlines functions, each of which is analyzed once and not for each call."""

    _name = "inlining"

    def _do_work(self, state: Any, work_list: Any, block: Any, i: int, expr: Any, inline_worker: Any) -> Any:
        worker = _Inliner(
            state.typingctx,
            state.targetctx,
            state.locals,
            state.pipeline,
            state.flags,
            inline_worker.validator,
        )
        return super()._do_work(state, work_list, block, i, expr, worker)


class _Inliner(InlineWorker):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._compiler_pipeline = _untyped_passes

    def inline_function(self, caller_ir: Any, block: Any, i: int, function: Any, arg_typs: Any = None) -> Any:
        if function not in _analyzed:
            _analyzed[function] = self.run_untyped_passes(function)
        freevars = function.__code__.co_freevars
        return self.inline_ir(caller_ir, block, i, _copied(_analyzed[function]), freevars, arg_typs)


class _CopiedBlock(ir.Block):
    """A block that belongs to one call, so that Numba's own, slow copies of it need not be made."""

    def __deepcopy__(self, memo: Any) -> "_CopiedBlock":
        return self


def _copied(function_ir: Any) -> Any:
    """A copy of a function's intermediate representation that may be changed."""
    made = copy.copy(function_ir)
    original = next(iter(made.blocks.values())).scope  # all blocks have the same
    scope = ir.Scope(original.parent, original.loc)
    for name, variable in original.localvars._con.items():
        scope.localvars.define(name, variable)
    made.blocks = {label: _CopiedBlock(scope, block.loc) for label, block in made.blocks.items()}
    for label, block in made.blocks.items():
        block.body = [_copied_statement(statement) for statement in function_ir.blocks[label].body]
    return made


def _copied_statement(statement: Any) -> Any:
    made = copy.copy(statement)
    if isinstance(made, ir.Assign) and isinstance(made.value, ir.Expr):
        made.value = ir.Expr(made.value.op, made.value.loc, **made.value._kws)
    return made
