"""Writes the pages of the API reference from docstrings, by reading the sources: nothing is imported, Keras neither."""

import ast
import re

# In the order of the flow.
FOLDERS = ("core", "training", "scenes", "separation", "views", "encoder", "evaluation", "course")
ITEM = re.compile(r"^    (\*{0,2}\w[\w, *]*): (.*)")


def markdown(docstring):
    """A docstring as Markdown: the arguments under `Args:` as a list."""
    lines, listed = [], False
    for line in docstring.splitlines():
        if line.strip() in ("Args:", "Attributes:", "Returns:"):
            lines, listed = [*lines, "", f"*{line.strip()}*", ""], True
        elif listed and (match := ITEM.match(line)):
            lines.append(f"- `{match[1]}`: {match[2]}")
        elif listed and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            listed = listed and not line
            lines.append(line)
    return "\n".join(lines).replace("~", r"\~")


def public(body):
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node for node in body if isinstance(node, kinds) and node.name[0] != "_" and ast.get_docstring(node)]


def signature(node, method=False):
    """The arguments as written, of a class those of its `__init__`, without `self`."""
    if isinstance(node, ast.ClassDef):
        inits = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
        if inits:
            return signature(inits[0], method=True)
        fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]  # of a dataclass or a named tuple
        return f"({', '.join(ast.unparse(field).partition(':')[0] for field in fields)})" if fields else ""
    given = ast.unparse(node.args)
    bound = method and not any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    return f"({re.sub(r'^(self|cls)(, )?', '', given) if bound else given})"


def directive(kind, name, body, fence):
    return f"{'`' * fence}{{py:{kind}}} {name}\n{body}\n{'`' * fence}\n"


def described(node):
    text = markdown(ast.get_docstring(node))
    if isinstance(node, ast.FunctionDef):
        return directive("function", f"{node.name}{signature(node)}", text, 5)
    methods = [
        directive("method", f"{child.name}{signature(child, method=True)}", markdown(ast.get_docstring(child)), 4)
        for child in public(node.body)
        if isinstance(child, ast.FunctionDef)
    ]
    return directive("class", f"{node.name}{signature(node)}", "\n\n".join([text, *methods]), 5)


def folder_page(folder):
    """Markdown of one folder of the library."""
    title = f"sepcl_keras.{folder.name}"
    parts = [f"# {folder.name}", markdown(ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))))]
    for path in sorted(folder.glob("*.py")):
        module, nodes = ast.parse(path.read_text("utf-8")), []
        if path.stem != "__init__":
            nodes = public(module.body)
        if nodes:
            name = f"{title}.{path.stem}"
            parts += [f"## {folder.name}.{path.stem}", f"```{{py:module}} {name}\n```"]
            parts += [markdown(ast.get_docstring(module) or ""), *map(described, nodes)]
    return "\n\n".join(parts) + "\n"


def public_names(package):
    """Name → module of what `sepcl_keras` itself offers, as its `__init__` says."""
    homes, module = {}, ast.parse((package / "__init__.py").read_text("utf-8"))
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("sepcl_keras."):
            homes |= {alias.name: node.module for alias in node.names}
        if isinstance(node, ast.Assign) and node.targets[0].id == "_HOMES":
            homes |= {
                name: f"sepcl_keras.{home}" for home, names in ast.literal_eval(node.value).items() for name in names
            }
    return dict(sorted(homes.items(), key=lambda pair: pair[0].lower()))


def write(package, target):
    """One page a folder, and an index with the public names."""
    target.mkdir(parents=True, exist_ok=True)
    rows = [f"- `sepcl_keras.{name}`: {{py:obj}}`{home}.{name}`" for name, home in public_names(package).items()]
    listing = "\n".join(FOLDERS)
    index = [
        "# API reference",
        "Made from the docstrings. A folder is one part of the flow and imports none of a later one.",
    ]
    index += [f"```{{toctree}}\n:maxdepth: 1\n\n{listing}\n```", "## Public names", "\n".join(rows)]
    (target / "index.md").write_text("\n\n".join(index) + "\n", "utf-8")
    for name in FOLDERS:
        (target / f"{name}.md").write_text(folder_page(package / name), "utf-8")
