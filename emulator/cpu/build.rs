//! Link arguments of a Node-API addon: symbols left to the host process, never unloaded with a worker.

fn main() {
    napi_build::setup();
}
