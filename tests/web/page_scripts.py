"""What several tests run in the page."""

FIND = """() => { // nodes and their widgets
    window.nodesOf = type => { // those in subgraphs too
        const graphs = [app.rootGraph ?? app.graph], found = [];
        for (const graph of graphs) for (const node of graph.nodes ?? graph._nodes) {
            if (node.type === type) found.push(node);
            if (node.subgraph && !graphs.includes(node.subgraph)) graphs.push(node.subgraph);
        }
        return found;
    };
    window.input = (type, name, place = 0) => nodesOf(type)[place].widgets.find(widget => widget.name === name);
}"""
TYPE = """([type, name, value]) => { // as if somebody had typed it
    const widget = input(type, name);
    widget.value = value;
    widget.callback?.(value);
}"""
QUEUE = """async () => {
    const ended = new Promise(done => {
        for (const [type, how] of [["execution_success", "success"], ["execution_error", "error"]])
            app.api.addEventListener(type, event => done(event.detail.exception_message ?? how), { once: true });
    });
    await app.queuePrompt(0, 1);
    return ended;
}"""
