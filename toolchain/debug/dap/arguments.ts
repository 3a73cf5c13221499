/** Arguments of a request, which come from outside: each is checked when it is asked for. */

/** A request that cannot be carried out; its message is the answer. */
export class RequestError extends Error {
  override readonly name = 'RequestError'
}

const MAXIMUM_LIST = 10_000
const MAXIMUM_TEXT = 1024 * 1024

export class Arguments {
  readonly #values: Readonly<Record<string, unknown>>
  readonly #where: string

  /** @param where what the arguments belong to, for messages: `stackTrace` @throws RequestError if they are none */
  constructor(where: string, values: unknown) {
    if (values !== undefined && !isObject(values)) throw new RequestError(`${where}: arguments must be an object`)
    this.#where = where
    this.#values = values ?? {}
  }

  has(name: string): boolean {
    return this.#values[name] !== undefined && this.#values[name] !== null
  }

  /** A whole number from `minimum` to `maximum`. @throws RequestError */
  integer(name: string, minimum = 0, maximum = Number.MAX_SAFE_INTEGER): number {
    const value = this.#values[name]
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < minimum || value > maximum)
      throw this.#wrong(name, `a whole number from ${minimum} to ${maximum}`)
    return value
  }

  integerOr<T>(name: string, otherwise: T, minimum = 0, maximum = Number.MAX_SAFE_INTEGER): number | T {
    return this.has(name) ? this.integer(name, minimum, maximum) : otherwise
  }

  text(name: string): string {
    const value = this.#values[name]
    if (typeof value !== 'string' || value.length > MAXIMUM_TEXT) throw this.#wrong(name, 'text')
    return value
  }

  textOr<T>(name: string, otherwise: T): string | T {
    return this.has(name) ? this.text(name) : otherwise
  }

  /** Text that says something: an empty one is none. */
  optionalText(name: string): string | undefined {
    const text = this.textOr(name, '').trim()
    return text === '' ? undefined : text
  }

  flag(name: string): boolean {
    const value = this.#values[name] ?? false
    if (typeof value !== 'boolean') throw this.#wrong(name, 'true or false')
    return value
  }

  /** An object within; one without anything if there is none. */
  object(name: string): Arguments {
    return new Arguments(`${this.#where}, ${name}`, this.#values[name] ?? {})
  }

  objects(name: string): Arguments[] {
    return this.#list(name).map((item, index) => new Arguments(`${this.#where}, ${name}[${index}]`, item))
  }

  texts(name: string): string[] {
    return this.#list(name).map((item) => {
      if (typeof item !== 'string' || item.length > MAXIMUM_TEXT) throw this.#wrong(name, 'a list of texts')
      return item
    })
  }

  integers(name: string): number[] {
    return this.#list(name).map((item) => {
      if (typeof item !== 'number' || !Number.isSafeInteger(item) || item < 0)
        throw this.#wrong(name, 'a list of whole numbers')
      return item
    })
  }

  #list(name: string): readonly unknown[] {
    const value = this.#values[name] ?? []
    if (!Array.isArray(value) || value.length > MAXIMUM_LIST)
      throw this.#wrong(name, `a list of at most ${MAXIMUM_LIST} items`)
    return value
  }

  #wrong(name: string, expected: string): RequestError {
    return new RequestError(`${this.#where}: '${name}' must be ${expected}`)
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
