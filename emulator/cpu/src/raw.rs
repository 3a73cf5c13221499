//! JavaScript functions over plain Node-API: 15-30 ns a call, where a method made by napi-rs costs some 450.
//!
//! Used for what runs once a slice or once a frame. Everything else is napi-rs.

use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::rc::Rc;

use napi::bindgen_prelude::{FromNapiValue, Unknown};
use napi::{Env, check_status, sys};

use crate::error::{Code, Result};

/// The arguments of a call.
pub struct Call {
    env: sys::napi_env,
    values: [sys::napi_value; 3],
}

impl Call {
    /// Argument `n` as an unsigned integer; 0 if it is no number.
    pub fn u32(&self, n: usize) -> u32 {
        let mut number = 0;
        // SAFETY: a value of this call; Node-API checks its type and leaves `number` alone if it does not fit.
        unsafe { sys::napi_get_value_uint32(self.env, self.values[n], &mut number) };
        number
    }

    /// Argument `n` as the bytes of a Uint8Array; `None` if it is something else.
    ///
    /// # Safety
    /// The slice is not kept beyond the call, nor JavaScript run while it is held.
    pub unsafe fn bytes<'call>(&self, n: usize) -> Option<&'call mut [u8]> {
        let (mut kind, mut length, mut data) = (0, 0, null_mut());
        // SAFETY: a value of this call; Node-API checks that it is a typed array.
        let status = unsafe {
            let unused = null_mut();
            sys::napi_get_typedarray_info(
                self.env,
                self.values[n],
                &mut kind,
                &mut length,
                &mut data,
                unused,
                null_mut(),
            )
        };
        if status != sys::Status::napi_ok || kind != sys::TypedarrayType::uint8_array {
            return None;
        }
        if data.is_null() || length == 0 {
            return Some(&mut []);
        }
        // SAFETY: the array is `length` bytes at `data`, and JavaScript, the only other user, does not run.
        Some(unsafe { std::slice::from_raw_parts_mut(data.cast(), length) })
    }
}

/// A method: what it returns is the JavaScript number; `None` is undefined.
pub type Method<T> = fn(&T, &Call) -> Option<f64>;

struct Bound<T> {
    target: Rc<T>,
    method: Method<T>,
    arguments: usize,
}

/// A JavaScript function that calls `method` of `target` with up to three arguments, and keeps `target` alive.
pub fn bind<T: 'static>(
    env: &Env,
    name: &CStr,
    target: &Rc<T>,
    arguments: usize,
    method: Method<T>,
) -> Result<Unknown<'static>> {
    make(env, name, target, arguments, method).map_err(|cause| Code::Internal.napi("no function", &cause))
}

fn make<T: 'static>(
    env: &Env,
    name: &CStr,
    target: &Rc<T>,
    arguments: usize,
    method: Method<T>,
) -> napi::Result<Unknown<'static>> {
    let data = Box::into_raw(Box::new(Bound { target: target.clone(), method, arguments: arguments.min(3) }));
    let mut function = null_mut();
    // SAFETY: `name` ends with a nul and `data` is what `call::<T>` expects.
    let made = unsafe {
        let length = name.to_bytes().len() as isize;
        sys::napi_create_function(env.raw(), name.as_ptr(), length, Some(call::<T>), data.cast(), &mut function)
    };
    // SAFETY: the function is alive; the finalizer gets `data` once.
    let tied = unsafe {
        match made {
            sys::Status::napi_ok => {
                sys::napi_add_finalizer(env.raw(), function, data.cast(), Some(free::<T>), null_mut(), null_mut())
            }
            failed => failed,
        }
    };
    if tied != sys::Status::napi_ok {
        // SAFETY: no finalizer was installed, and the function, if there is one, is not handed out.
        drop(unsafe { Box::from_raw(data) });
        check_status!(tied, "Node-API makes no function")?;
    }
    // SAFETY: a value of this scope.
    unsafe { Unknown::from_napi_value(env.raw(), function) }
}

unsafe extern "C" fn call<T>(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let mut data = null_mut();
    let mut given = Call { env, values: [null_mut(); 3] };
    let mut count = given.values.len();
    // SAFETY: called by Node-API with these two; asks for no more arguments than there is room for. A function of no
    // arguments need not be asked for any, which is the better part of the cost.
    unsafe {
        sys::napi_get_cb_info(env, info, null_mut(), null_mut(), null_mut(), &mut data);
        let bound = &*data.cast::<Bound<T>>();
        if bound.arguments > 0 {
            sys::napi_get_cb_info(env, info, &mut count, given.values.as_mut_ptr(), null_mut(), null_mut());
        }
        // A panic must not cross into C. The methods leave their target usable: they go through RefCell.
        let result = catch_unwind(AssertUnwindSafe(|| (bound.method)(&bound.target, &given)));
        let mut value = null_mut();
        if let Ok(Some(number)) = result {
            sys::napi_create_double(env, number, &mut value);
        }
        value
    }
}

unsafe extern "C" fn free<T>(_: sys::napi_env, data: *mut c_void, _: *mut c_void) {
    // SAFETY: made by `make`, which installed this finalizer once; Node-API calls it when the function is gone.
    drop(unsafe { Box::from_raw(data.cast::<Bound<T>>()) });
}
