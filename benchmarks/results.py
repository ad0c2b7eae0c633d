def machine(): return {}
def write(d,p): pass
