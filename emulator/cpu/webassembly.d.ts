/** What v8.ts uses of the WebAssembly JavaScript interface: TypeScript declares it with the DOM only. */
declare global {
  namespace WebAssembly {
    class Memory {
      constructor(descriptor: { initial: number; maximum: number })
      readonly buffer: ArrayBuffer
    }
    class Module {
      constructor(bytes: Uint8Array)
    }
    function compile(bytes: Uint8Array): Promise<Module>
    class Instance {
      constructor(module: Module, imports: Record<string, Record<string, Memory>>)
      readonly exports: Record<string, unknown>
    }
  }
}

export {}
