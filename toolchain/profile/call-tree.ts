/** Call stacks with counts, each kept once. */

/** Frames deeper than this count to the deepest that is kept. */
const MAXIMUM_DEPTH = 128

/** A function that is running, by the way that led to it. */
export interface CallNode {
  readonly parent: CallNode | undefined
  readonly depth: number
  /** Where it was called comes back to, in the caller; 0 for the entry point. */
  readonly returnPc: number
  readonly callees: Map<number, CallNode>
  /** Stacks that end in this function, by the offset of the instruction. */
  readonly stacks: Map<number, number>
}

/** Offsets in the module, outermost first: of callers those that the calls come back to, then that of the instruction itself. */
export type CallStack = readonly number[]

export class CallTree {
  readonly root: CallNode = makeNode(undefined, 0)
  readonly #ends: { readonly node: CallNode; readonly pc: number }[] = []
  readonly #counts: number[] = []

  /** The function called from `node` by the call that comes back to `returnPc`. */
  callee(node: CallNode, returnPc: number): CallNode {
    let callee = node.callees.get(returnPc)
    if (callee === undefined) {
      if (node.depth >= MAXIMUM_DEPTH) return node
      callee = makeNode(node, returnPc)
      node.callees.set(returnPc, callee)
    }
    return callee
  }

  /** Counts an instruction of `node`; gives the number of its stack. */
  count(node: CallNode, pc: number, times: number): number {
    let stack = node.stacks.get(pc)
    if (stack === undefined) {
      stack = this.#ends.length
      node.stacks.set(pc, stack)
      this.#ends.push({ node, pc })
      this.#counts.push(0)
    }
    this.#counts[stack]! += times
    return stack
  }

  /** By their numbers. */
  stacks(): CallStack[] {
    return this.#ends.map(({ node, pc }) => {
      const stack = [pc]
      for (let at = node; at.parent !== undefined; at = at.parent) stack.unshift(at.returnPc)
      return stack
    })
  }

  /** Of each stack. */
  counts(): number[] {
    return [...this.#counts]
  }
}

function makeNode(parent: CallNode | undefined, returnPc: number): CallNode {
  const depth = parent === undefined ? 1 : parent.depth + 1
  return { parent, depth, returnPc, callees: new Map(), stacks: new Map() }
}
