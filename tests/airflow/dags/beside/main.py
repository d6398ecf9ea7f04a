print("beside", 6 * 7)
