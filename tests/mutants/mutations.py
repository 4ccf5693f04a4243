"""One-line mutations of a module's source: small mistakes that a test should notice.

Left out are strings and what messages are made of, annotations (beartype checks those under pytest), assertions, and
`return None` where the annotation forbids it: a mutation that any test catches says nothing about the tests.
"""

import ast
import difflib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
OPPOSITES = {
    "min": "max",
    "any": "all",
    "minimum": "maximum",
    "amin": "amax",
    "argmin": "argmax",
    "floor": "ceil",
    "sin": "cos",
    "zeros": "ones",
    "zeros_like": "ones_like",
}
OPPOSITES |= {after: before for before, after in OPPOSITES.items()}
SAME_TYPE = {"abs", "clamp", "detach", "eval", "exp", "lower", "mean", "sign", "sort", "sqrt", "square", "strip"}
"""Methods that return something of their object's type, so that dropping the call is no mistake of types."""
MODULES = ("math", "np", "os", "torch")


Node = ast.expr | ast.stmt | ast.keyword


@dataclass(frozen=True)
class Mutation:
    """A part of one line of a file, and what replaces it."""

    path: str
    """Below src/undiffuse, such as metrics/kernel.py."""
    line: int
    """From 1."""
    start: int
    end: int
    """In bytes of the line, as ast counts."""
    replacement: str
    kind: str

    @property
    def area(self) -> str:
        return self.path.partition("/")[0]

    @property
    def module(self) -> str:
        return f"undiffuse.{self.path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"

    @property
    def key(self) -> str:
        return f"{self.path}:{self.line}:{self.start}-{self.end}:{self.replacement}"

    def apply(self, source: str) -> str:
        """The source with the mutation."""
        lines = source.encode().splitlines(keepends=True)
        before = lines[self.line - 1]
        lines[self.line - 1] = before[: self.start] + self.replacement.encode() + before[self.end :]
        return b"".join(lines).decode()

    def lines(self, source: str) -> tuple[str, str]:
        """The line before and after, without its indentation."""
        before, after = (text.splitlines()[self.line - 1].strip() for text in (source, self.apply(source)))
        return before, after

    def diff(self, source: str) -> str:
        """A unified diff."""
        name = f"src/undiffuse/{self.path}"
        before, after = (text.splitlines(keepends=True) for text in (source, self.apply(source)))
        return "".join(difflib.unified_diff(before, after, name, name, n=1))


def mutations(root: Path, areas: tuple[str, ...]) -> list[Mutation]:
    """All mutations of the modules in some folders of `root`, by path and place."""
    found = []
    for area in areas:
        for file in sorted((root / area).rglob("*.py")):
            found += mutations_of(file.read_text(encoding="utf-8"), file.relative_to(root).as_posix())
    return found


def mutations_of(source: str, path: str) -> list[Mutation]:
    """All mutations of one module, some of which may not compile."""
    finder = _Finder(source, path)
    finder.visit(ast.parse(source))
    found = {each.key: each for each in finder.found}
    return sorted(found.values(), key=lambda each: (each.line, each.start, each.end, each.replacement))


def changes(mutation: Mutation, source: str) -> bool:
    """Whether the mutation compiles, to something else."""
    try:
        return ast.dump(ast.parse(mutation.apply(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def chosen(root: Path, areas: tuple[str, ...], count: int, seed: int) -> list[Mutation]:
    """So many mutations, at most one a line; constants, the most of all, come half as often as they stand there."""
    rng = random.Random(seed)
    found = [each for each in mutations(root, areas) if each.kind != "constant" or rng.random() < 0.5]
    rng.shuffle(found)
    kept: dict[tuple[str, int], Mutation] = {}
    for each in found:
        if len(kept) == count:
            break
        place = each.path, each.line
        if place not in kept and changes(each, (root / each.path).read_text(encoding="utf-8")):
            kept[place] = each
    return list(kept.values())


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str, path: str):
        self.lines, self.path = source.encode().splitlines(), path
        self.found: list[Mutation] = []
        self.may_return_none = False

    def replace(self, node: Node, replacement: str, kind: str) -> None:
        """Replaces a node that is on one line."""
        if node.lineno == node.end_lineno:
            self.add(node.lineno, node.col_offset, _end(node), replacement, kind)

    def add(self, line: int, start: int, end: int, replacement: str, kind: str) -> None:
        self.found.append(Mutation(self.path, line, start, end, replacement, kind))

    def text(self, node: Node) -> str:
        return self.lines[node.lineno - 1][node.col_offset : _end(node)].decode()

    def between(self, left: Node, right: Node, edit: Callable[[str], str | None], kind: str) -> None:
        """Edits what is between two nodes on one line: their operator, and perhaps parentheses."""
        if left.end_lineno != right.lineno:
            return
        line, start, end = right.lineno, _end(left), right.col_offset
        changed = edit(self.lines[line - 1][start:end].decode())
        if changed is not None:
            self.add(line, start, end, changed, kind)

    # What is not looked into.

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A message; before Python 3.12 the places of what is inside are wrong, too."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """What only a bug can break."""

    def visit_arg(self, node: ast.arg) -> None:
        """An annotation."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Also the annotations in an alias of a type: its bars are no arithmetic."""
        if not (isinstance(node.value, ast.Name) and node.value.id[0].isupper()):
            self.generic_visit(node)

    # What is mutated.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, returns = self.may_return_none, node.returns
        self.may_return_none = returns is not None and "None" in ast.unparse(returns)
        for each in (node.args, *node.body):  # Decorators are left out: to freeze a dataclass is no behavior.
            self.visit(each)
        self.may_return_none = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for each in node.body:
            self.visit(each)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
            new = COMPARISONS[type(operator)]
            self.between(left, right, lambda text, new=new: f" {new} " if "(" not in text + ")" else None, "comparison")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC and not _is_type(node):
            old, new = ARITHMETIC[type(node.op)]
            self.between(node.left, node.right, lambda text: text.replace(old, new), "arithmetic")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            self.between(node.target, node.value, lambda text: text.replace(old, new), "arithmetic")
            self.between(node.target, node.value, lambda _: " = ", "assignment")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, lambda text: text.replace(old, new), "boolean")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.Invert | ast.USub) and node.lineno == node.operand.lineno:
            self.add(node.lineno, node.col_offset, node.operand.col_offset, "", "sign or not dropped")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.replace(node, str(not value), "constant")
        elif isinstance(value, int | float):
            for new in (2 * value if value else 1, 0 if value else -1):
                self.replace(node, repr(new), "constant")

    def visit_If(self, node: ast.If) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
            self.replace(test, "True", "condition")
        self.generic_visit(node)

    def negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.UnaryOp | ast.Compare) and test.lineno == test.end_lineno:
            self.replace(test, f"not ({self.text(test)})", "condition")
        elif isinstance(test, ast.Compare):
            self.replace(test, "False", "condition")

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in OPPOSITES and node.func.lineno == node.func.end_lineno:
            end = _end(node.func)
            self.add(node.func.end_lineno, end - len(name), end, OPPOSITES[name], "opposite function")
        if isinstance(node.func, ast.Attribute) and node.lineno == node.end_lineno:
            arguments = [*node.args, *node.keywords]
            of_module = isinstance(node.func.value, ast.Name) and node.func.value.id in MODULES
            if len(arguments) <= 1 and name in SAME_TYPE and not of_module:
                self.replace(node, self.text(node.func.value), "method dropped")
        self.drop_keywords(node)
        self.generic_visit(node)

    def drop_keywords(self, node: ast.Call) -> None:
        """Drops one named argument, with the comma before or after it."""
        arguments = sorted([*node.args, *(k for k in node.keywords)], key=lambda each: (each.lineno, each.col_offset))
        for before, each, after in zip([None, *arguments], arguments, [*arguments[1:], None], strict=False):
            if not isinstance(each, ast.keyword) or each.arg is None or each.lineno != each.end_lineno:
                continue
            if before is not None and before.end_lineno == each.lineno:
                self.add(each.lineno, _end(before), _end(each), "", "argument dropped")
            elif after is not None and after.lineno == each.lineno:
                self.add(each.lineno, each.col_offset, after.col_offset, "", "argument dropped")
            else:
                line = self.lines[each.lineno - 1]
                end = _end(each)
                self.add(each.lineno, each.col_offset, end + (line[end : end + 1] == b","), "", "argument dropped")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.replace(node, "pass", "call dropped")
            self.generic_visit(node.value)
            self.drop_keywords(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            if self.may_return_none and not (isinstance(node.value, ast.Constant) and node.value.value is None):
                self.replace(node.value, "None", "return")
            self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.replace(node, "break", "loop")

    def visit_Break(self, node: ast.Break) -> None:
        self.replace(node, "continue", "loop")


def _end(node: Node) -> int:
    assert node.end_col_offset is not None, "parsed from a source"
    return node.end_col_offset


def _is_type(node: ast.BinOp) -> bool:
    """Whether the operation is a union of types."""
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(each, ast.Constant) and each.value is None)
        or (
            isinstance(each, ast.Name)
            and (each.id in ("int", "float", "str", "bool", "list", "tuple") or each.id[0].isupper())
        )
        for each in (node.left, node.right)
    )
